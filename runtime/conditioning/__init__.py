"""The conditioning of a UNet call, as fields of `Row`. Each module produces some of the fields."""
