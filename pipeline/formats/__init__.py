"""File formats: images, tars, Parquet, Zarr arrays and their rows, safetensors."""
