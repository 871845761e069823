"""What every room of the package uses: audio, tokens, the codec class, the registry."""
