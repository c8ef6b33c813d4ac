# Varnish in front of the calibration database: /etc/varnish/default.vcl
# What may be kept and what must be asked for again, the server says in each answer. Varnish's own rules do the rest.
vcl 4.1;

backend default {
    .host = "127.0.0.1";
    .port = "8080";
}
