"""Plain networks that no package ships."""
