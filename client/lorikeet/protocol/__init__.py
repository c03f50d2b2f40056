"""What client, server and gateway share on the wire: tensor names, request parameters, error names."""
