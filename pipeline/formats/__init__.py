"""Bytes to arrays and back: images, tars, Parquet, Zarr rows, safetensors."""
