"""When and where steps run: order, versions, resume, processes."""
