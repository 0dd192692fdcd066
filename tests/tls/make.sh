#!/bin/sh
# Makes the certificates of the tests: an authority that nobody trusts, and two servers of it.
set -eu
cd "$(dirname "$0")"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 \
    -subj "/CN=Folkmoot test authority" -keyout authority.key -out authority.pem
for name in one two; do
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" \
        -keyout "$name.key" -out "$name.csr"
    printf 'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\nbasicConstraints=CA:FALSE\n' > ext
    openssl x509 -req -in "$name.csr" -CA authority.pem -CAkey authority.key -CAcreateserial \
        -days 36500 -extfile ext -out "$name.pem"
done
rm -f ./*.csr ./*.srl ext authority.key
