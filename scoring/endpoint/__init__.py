"""Asks servers of others for probabilities, over the two interfaces that this product's own server has."""
