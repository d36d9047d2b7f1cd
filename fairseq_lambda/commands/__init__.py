"""The sub-commands of ``lambda-bert``, one module each; ``__main__`` lists them."""
