"""From files in the course's format to arrays (section 5.1): sources, strict reading, cleaning, tokenizing."""
