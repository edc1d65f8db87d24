"""How the cost of a layer grows with the length and the width: what is counted, and what is measured."""
