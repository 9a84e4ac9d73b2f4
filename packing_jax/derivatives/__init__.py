"""Derivatives through the dynamics, of one run and of averages over draws."""
