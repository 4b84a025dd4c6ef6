"""How far are purified noisy images from clean ones?"""
