"""`python -m vtcav_ray` is the command `vtcav`."""

from vtcav_ray.cli import main

if __name__ == "__main__":
    main()
