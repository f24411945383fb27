"""A session of Python's ftplib: session.py HOST PORT USER PASSWORD HOME"""
import ftplib, io, os, sys

host, port, user, password, home = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
text = b"one\r\ntwo\r\n\r\nthree\r\n"
binary = bytes(range(256)) * 4096

f = ftplib.FTP(encoding="utf-8")
f.connect(host, port, timeout=30)
f.login(user, password)
assert f.pwd() == "/"
for passive in True, False:
    f.set_pasv(passive)  # PASV or PORT over IPv4, EPSV or EPRT over IPv6
    d = f.mkd("d %s" % passive)
    assert d == "/d %s" % passive, d
    f.cwd(d)

    f.storbinary("STOR binary", io.BytesIO(binary))
    assert f.size("binary") == len(binary)
    assert open(home + d + "/binary", "rb").read() == binary
    got = io.BytesIO()
    f.retrbinary("RETR binary", got.write)
    assert got.getvalue() == binary
    got = io.BytesIO()
    f.retrbinary("RETR binary", got.write, rest=1000)
    assert got.getvalue() == binary[1000:]
    f.storbinary("APPE binary", io.BytesIO(b"more"))
    assert open(home + d + "/binary", "rb").read() == binary + b"more"

    f.storlines("STOR text", io.BytesIO(text))
    assert open(home + d + "/text", "rb").read() == text.replace(b"\r\n", b"\n")
    lines = []
    f.retrlines("RETR text", lines.append)
    assert "\r\n".join(lines + [""]).encode() == text, lines

    facts = dict(f.mlsd(facts=["type", "size", "modify"]))
    assert sorted(n for n in facts if facts[n]["type"] == "file") == ["binary", "text"], facts
    assert facts["binary"]["size"] == str(len(binary) + 4), facts
    facts = dict(f.mlsd("/", ["type", "perm"]))
    assert facts[d[1:]]["type"] == "dir" and "perm" in facts[d[1:]] and "size" not in facts[d[1:]], facts
    assert sorted(f.nlst()) == ["binary", "text"], f.nlst()
    long = []
    f.dir(long.append)
    assert any(line.endswith(" binary") for line in long), long

    f.voidcmd("TYPE I")
    names = []
    for content in b"first", b"second":
        conn, _ = f.ntransfercmd("STOU")
        conn.sendall(content)
        conn.close()
        f.voidresp()
    unique = sorted(set(f.nlst()) - {"binary", "text"})
    assert len(unique) == 2, unique
    assert {open(home + d + "/" + n, "rb").read() for n in unique} == {b"first", b"second"}
    for n in unique:
        f.delete(n)

    conn = f.transfercmd("RETR binary")
    conn.recv(10)
    reply = f.abort()
    conn.close()
    assert reply[:3] in ("426", "226"), reply
    if reply[:3] == "426":
        assert f.getmultiline()[:3] == "226"
    f.voidcmd("NOOP")

    f.rename("text", "-renamed")
    f.delete("-renamed")
    f.delete("binary")
    f.cwd("..")
    try:
        f.delete("nothing")
        sys.exit("what isn't there was deleted")
    except ftplib.error_perm as e:
        assert str(e).startswith("550"), e
    f.rmd(d)
assert os.listdir(home) == [], os.listdir(home)
print(f.quit())
