"""Who answers what the instructions cannot do alone."""
