"""The test bed: podman, base images and disposable test machines on a developer's machine."""
