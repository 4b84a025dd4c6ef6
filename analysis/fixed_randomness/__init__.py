"""What does randomness hide from an attack?"""
