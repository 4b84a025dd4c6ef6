"""How much does a purifier compress the neighbourhood of an image?"""
