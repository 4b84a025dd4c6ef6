"""How much of a purifier's variability is randomness, how much input?"""
