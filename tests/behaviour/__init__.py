"""What users see, whichever modules it takes."""
