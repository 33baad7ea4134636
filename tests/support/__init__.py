"""Helpers of the tests: small inputs, doubles that ship with the tests, servers, pictures."""
