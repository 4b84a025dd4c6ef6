"""What do generators make of noise alone?"""
