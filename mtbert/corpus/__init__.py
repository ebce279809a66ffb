"""Section 5.1: from files in the course's format to arrays. Sources, strict reading, cleaning, tokenizing."""
