"""Arrow data of other programs: IPC streams within bounds, and columns in the form of frames."""
