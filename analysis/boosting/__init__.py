"""What does boosting do to sets of generated images?"""
