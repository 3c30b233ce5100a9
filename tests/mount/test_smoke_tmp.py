"""x"""
def test_rw(drive):
    """x"""
    drive.write_file("a", b"hello")
    assert drive.read_file("a") == b"hello"
    assert drive.listdir() == ["a"]
    assert drive.sync() == 0
    assert (drive.disk / "a").read_bytes() == b"hello"
