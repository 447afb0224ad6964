"""mIoU of every subset of the modalities, with and without corruptions."""
