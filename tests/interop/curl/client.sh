#!/bin/bash
# The short scenario with curl alone: the envelopes as they are sent.

# docs: begin
# Ask a service: what stands on standard input is the Body.
ask() {
    { printf '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'; cat; printf '</s:Body></s:Envelope>'; } |
        curl --silent --show-error --header 'Content-Type: text/xml; charset=utf-8' --header 'SOAPAction: ""' \
            --data-binary @- "${@:2}" "$CDB_SERVER/cdb/v2/$1"
}

# What applies to a device and type at a time like 2016-03-01T08:00:00.123456Z. The namespace stands on the operation.
applies() {
    ask calibration <<-END
	<get_calibration_for_date xmlns="urn:mice:cdb:2">
	  <device_name>$1</device_name>
	  <calibration_type>$2</calibration_type>
	  <date>$3</date>
	</get_calibration_for_date>
	END
}

# Store a file, to apply from a time on.
store() {
    ask calibrationSuperMouse --user "$CDB_USER:$CDB_TOKEN" <<-END
	<add_calibration xmlns="urn:mice:cdb:2">
	  <device_name>$1</device_name>
	  <calibration_type>$2</calibration_type>
	  <valid_from>$3</valid_from>
	  <data>$(base64 <"$4")</data>
	  <sha256>$(sha256sum <"$4" | cut -c 1-64)</sha256>
	</add_calibration>
	END
}

# The bytes in an answer.
payload_of() {
    sed -n 's/.*<tns:data>\(.*\)<\/tns:data>.*/\1/p' | base64 --decode
}
# docs: end

at=2016-03-01T08:00:00.123456Z before=2016-03-01T08:00:00.123455Z
echo "status: $(ask calibration <<<'<get_status xmlns="urn:mice:cdb:2"/>' | grep -o '>OK<' | tr -d '<>')"
store "$INTEROP_DEVICE" short "$at" "$INTEROP_PAYLOADS/binary" >/dev/null
cmp --silent <(applies "$INTEROP_DEVICE" short "$at" | payload_of) "$INTEROP_PAYLOADS/binary" && echo "bytes: true"
echo "before: $(applies "$INTEROP_DEVICE" short "$before")" | tr '\n' ' ' | cut -c 1-600
ask calibration <<<'<list_devices xmlns="urn:mice:cdb:2"/>' | grep --quiet ">$INTEROP_DEVICE<" && echo "devices: true"
echo "no-token: $(ask calibrationSuperMouse --write-out "%{http_code}" <<<"<add_run/>" | tr "\n" " ")"
