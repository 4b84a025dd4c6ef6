"""How far are images from their originals, step by step and as sets?"""
