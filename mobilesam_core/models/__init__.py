"""The network: image encoders, prompt encoder, mask decoder, and the named architectures built of them."""
