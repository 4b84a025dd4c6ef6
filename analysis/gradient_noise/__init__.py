"""How noisy is the gradient of a random defense?"""
