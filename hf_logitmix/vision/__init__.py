"""The same methods on images; needs `pip install "hf_logitmix[vision]"`."""
