def draw(r,f): pass
