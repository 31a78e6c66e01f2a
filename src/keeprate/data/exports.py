def read_export(path):
    return None
