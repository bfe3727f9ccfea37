#!/usr/bin/env python3
"""The result of a job as a table, over Arrow Flight.

    pip install pyarrow
    python3 examples/flight.py --credential admin.pem --scheduler HOST:PORT[,HOST:PORT..] JOB [--binary] [--csv FILE]

For results that stay on workers (`[output] path = "worker:"`), of programs built with `--features flight`. Prints the columns, the number of rows and the first
rows; `--csv` writes all rows. The credential is the file that `raftwerk` uses: one certificate, its key, and the certificate of the cluster's CA.
"""

import argparse
import re
import sys

import pyarrow
import pyarrow.csv
import pyarrow.flight as flight


def connect(location, credential, kind):
    """A channel over mutual TLS. Certificates name what a process is, not where: `scheduler.raftwerk`, `worker.raftwerk`."""
    with open(credential, "rb") as file:
        blocks = re.findall(rb"-----BEGIN ([A-Z ]+)-----\n(.*?)-----END", file.read(), re.S)
    if [label for label, _ in blocks] != [b"CERTIFICATE", b"PRIVATE KEY", b"CERTIFICATE"]:
        sys.exit(f"error: {credential} is no credential: it holds no certificate, key and CA certificate")
    certificate, key, ca = (b"-----BEGIN %s-----\n%s-----END %s-----\n" % (label, body, label) for label, body in blocks)
    return flight.connect(location, tls_root_certs=ca, cert_chain=certificate, private_key=key, override_hostname=f"{kind}.raftwerk")


def info_of(args):
    """Any replica may be asked; those that do not lead say so, and the next one is tried."""
    descriptor = flight.FlightDescriptor.for_path(args.job, *(["binary"] if args.binary else []))
    addresses = args.scheduler.split(",")
    for left, address in zip(range(len(addresses) - 1, -1, -1), addresses):
        try:
            return connect(f"grpc+tls://{address}", args.credential, "scheduler").get_flight_info(descriptor)
        except (flight.FlightError, pyarrow.ArrowException) as error:
            if not left or ("does not lead" not in str(error) and not isinstance(error, flight.FlightUnavailableError)):
                raise


def part(endpoint, credential):
    """From the first keeper that has it."""
    for left, location in zip(range(len(endpoint.locations) - 1, -1, -1), endpoint.locations):
        try:
            return connect(location, credential, "worker").do_get(endpoint.ticket).read_all()
        except (flight.FlightError, pyarrow.ArrowException):
            if not left:
                raise


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--credential", required=True)
    parser.add_argument("--scheduler", required=True)
    parser.add_argument("--binary", action="store_true", help="text columns as bytes, for text that is no UTF-8")
    parser.add_argument("--csv")
    parser.add_argument("job")
    args = parser.parse_args()
    try:
        info = info_of(args)
        table = pyarrow.concat_tables(part(endpoint, args.credential) for endpoint in info.endpoints)
    except (flight.FlightError, pyarrow.ArrowException) as error:
        sys.exit(f"error: {error}")
    print(table.schema)
    print(f"{table.num_rows} rows of {info.total_records}")
    for row in table.slice(0, 5).to_pylist():
        print(row)
    if args.csv:
        pyarrow.csv.write_csv(table, args.csv)


main()
