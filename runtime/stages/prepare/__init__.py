"""`prepare`: a request's JSON -> a validated plan. No torch."""
