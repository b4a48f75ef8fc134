"""ask.py NAME PORT: print the digest of the LMS that nginx of this machine serves under that name."""

import http.client
import json
import socket
import ssl
import sys

name, port = sys.argv[1], int(sys.argv[2])
# The certificate is for the public; this is the machine talking to itself. nginx must be told the name all the same.
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
connection = http.client.HTTPConnection(name, port)
connection.sock = context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10), server_hostname=name)
connection.request("GET", "/health")
print(json.load(connection.getresponse())["digest"])
