"""How well images are restored: PSNR and SSIM against clean images."""
