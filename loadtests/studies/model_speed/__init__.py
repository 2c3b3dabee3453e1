"""How fast the model is: bare in one process, behind the embedded Triton at saturation, and as the model card runs it."""
