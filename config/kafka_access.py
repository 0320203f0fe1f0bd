"""Whether the settings for Kafka's users and certificates fit together, and whether the files can be used."""

import ssl
from collections.abc import Iterator, Mapping

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_USER = ("KAFKA_SASL_MECHANISM", "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD")
_FILES = ("KAFKA_SSL_CA_FILE", "KAFKA_SSL_CERT_FILE", "KAFKA_SSL_KEY_FILE")


def access_problems(values: Mapping[str, str | None]) -> Iterator[str]:
    """Say, with the fix, what is wrong with these settings, given by their names in the environment."""
    protocol = values["KAFKA_SECURITY_PROTOCOL"] or "PLAINTEXT"
    if protocol.startswith("SASL"):
        for name in _USER:
            if values[name] is None:
                fix = f": {', '.join(MECHANISMS)}" if name == "KAFKA_SASL_MECHANISM" else ""
                yield f"{name} is not set (KAFKA_SECURITY_PROTOCOL {protocol} needs it{fix})"
    else:
        for name in _USER:
            if values[name] is not None:
                yield f"{name} needs KAFKA_SECURITY_PROTOCOL SASL_SSL or SASL_PLAINTEXT, is {protocol}"
    if protocol.endswith("SSL"):
        yield from _file_problems(*(values[name] for name in _FILES))
    else:
        for name in _FILES:
            if values[name] is not None:
                yield f"{name} needs KAFKA_SECURITY_PROTOCOL SSL or SASL_SSL, is {protocol}"


def _file_problems(ca_file: str | None, cert_file: str | None, key_file: str | None) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except OSError as ex:
            yield f"KAFKA_SSL_CA_FILE must be a file of PEM certificates, {ca_file!r}: {_why(ex)}"
    if cert_file is None and key_file is None:
        return
    if cert_file is None:
        yield "KAFKA_SSL_CERT_FILE is not set (KAFKA_SSL_KEY_FILE is the key of that certificate)"
    elif key_file is None:
        yield "KAFKA_SSL_KEY_FILE is not set (KAFKA_SSL_CERT_FILE needs its key)"
    else:
        try:
            # Without a password OpenSSL would ask for one, at the terminal.
            context.load_cert_chain(cert_file, key_file, password="")
        except OSError as ex:
            yield (
                "KAFKA_SSL_CERT_FILE must be a PEM certificate and KAFKA_SSL_KEY_FILE its key, in PEM without a "
                f"password, {cert_file!r} and {key_file!r}: {_why(ex)}"
            )


def _why(ex: OSError) -> str:
    return (ex.reason if isinstance(ex, ssl.SSLError) else ex.strerror) or "not readable"
