"""The preview picture: profile pictures, fonts and text of any script."""
