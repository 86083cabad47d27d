#!/bin/sh
# A replica set with passwords wants a key that its members share. This one has a single member,
# so a new key at each start will do; the entrypoint hands the file to mongod's user.
set -eu
umask 077
rm -f /data/configdb/member.key
head -c 512 /dev/urandom | base64 > /data/configdb/member.key
exec docker-entrypoint.sh mongod --replSet dray --keyFile /data/configdb/member.key --bind_ip_all
