def write_page(run):
    pass
