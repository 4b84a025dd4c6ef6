"""How alike images look, one by one (SSIM) and as sets: distances over features of networks."""
