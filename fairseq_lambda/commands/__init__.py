"""The sub-commands of ``lambda-bert``, a module each; ``__main__`` lists them."""
