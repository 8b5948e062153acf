"""What the tests of the OpenAPI document share."""
