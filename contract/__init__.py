"""What training and service must agree on: decoding, preprocessing, manifest and store."""
