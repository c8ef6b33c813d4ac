// The scenario in C++ with gSOAP.

// docs: begin
#include <cstdlib>
#include <stdexcept>
#include <string>

#include <openssl/evp.h>

#include "CalibrationBinding.nsmap"
#include "soapCalibrationBindingProxy.h"

// One class has the operations of both services. Each proxy owns what it received until its destroy() or its end.
const std::string url = std::getenv("CDB_SERVER");
const std::string reading = url + "/cdb/v2/calibration", writing = url + "/cdb/v2/calibrationSuperMouse";
CalibrationBindingProxy reader(reading.c_str()), writer(writing.c_str());

// gSOAP forgets user and token after every call.
CalibrationBindingProxy &signed_in() {
    writer.soap->userid = std::getenv("CDB_USER");
    writer.soap->passwd = std::getenv("CDB_TOKEN");
    return writer;
}

std::string sha256(const std::string &data) {
    unsigned char digest[32];
    EVP_Digest(data.data(), data.size(), digest, nullptr, EVP_sha256(), nullptr);
    std::string text;
    for (unsigned char byte : digest) {
        text += "0123456789abcdef"[byte >> 4];
        text += "0123456789abcdef"[byte & 15];
    }
    return text;
}

// Every call answers SOAP_OK or leaves a fault, whose detail holds one pointer that is not null.
void check(CalibrationBindingProxy &proxy, int status) {
    if (status == SOAP_OK) return;
    SOAP_ENV__Detail *detail = proxy.soap_fault() ? proxy.soap_fault()->detail : nullptr;
    if (detail && detail->cdb__CalibrationNotFound_)
        throw std::out_of_range(detail->cdb__CalibrationNotFound_->message);
    throw std::runtime_error(std::to_string(status) + ": " + (proxy.soap_fault_string() ?: "no answer"));
}

// Store bytes, to apply from a time like 2016-03-01T08:00:00.123456Z on.
cdb__calibration_USCORErecord *store(
    const std::string &device, const std::string &type, const std::string &valid_from, std::string data
) {
    std::string checksum = sha256(data), comment = "from gSOAP";
    _cdb__add_USCOREcalibration question;
    question.device_USCOREname = device;
    question.calibration_USCOREtype = type;
    question.valid_USCOREfrom = valid_from;
    question.data.__ptr = reinterpret_cast<unsigned char *>(&data[0]);
    question.data.__size = data.size();
    question.sha256 = &checksum;  // the server checks it; an empty payload needs it
    question.comment = &comment;
    _cdb__add_USCOREcalibrationResponse answer;
    check(writer, signed_in().add_USCOREcalibration(&question, answer));
    return answer.calibration;
}

// The bytes of an answer, checked.
std::string payload_of(const cdb__calibration_USCORErecord *calibration) {
    const xsd__base64Binary *data = calibration->data;
    std::string bytes(reinterpret_cast<char *>(data->__ptr), data->__size);
    if (sha256(bytes) != calibration->sha256) throw std::runtime_error("damaged on its way");
    return bytes;
}

cdb__calibration_USCORErecord *for_run(const std::string &device, const std::string &type, LONG64 run) {
    _cdb__get_USCOREcalibration_USCOREfor_USCORErun question;
    question.device_USCOREname = device;
    question.calibration_USCOREtype = type;
    question.run_USCOREnumber = run;
    _cdb__get_USCOREcalibration_USCOREfor_USCORErunResponse answer;
    check(reader, reader.get_USCOREcalibration_USCOREfor_USCORErun(&question, answer));
    return answer.calibration;
}
// docs: end

#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <map>
#include <sstream>
#include <vector>

using Record = cdb__calibration_USCORErecord;
using Labels = std::vector<std::string>;

const std::string VALID_FROM = "2016-01-01T00:00:00.000000Z";
const std::string RUN_START = "2016-02-01T12:00:00.000001Z", RUN_STOP = "2016-02-01T13:00:00.000000Z";
const std::string BEFORE_PRECISE = "2016-03-01T08:00:00.123455Z";
const std::string PRECISE = "2016-03-01T08:00:00.123456Z";
const std::string AFTER_PRECISE = "2016-03-01T08:00:00.123457Z";
const std::string BEFORE_OFFSET = "2016-03-01T12:00:00.000000+02:00", OFFSET = "2016-03-01T12:00:00.000001+02:00";
const std::string OFFSET_IN_UTC = "2016-03-01T10:00:00.000001Z", WITHOUT_OFFSET = "2016-03-01T10:00:00.000001";

const std::string device = std::getenv("INTEROP_DEVICE");
const LONG64 run = std::atoll(std::getenv("INTEROP_RUN"));
const Labels names = {"binary", "megabyte", "empty"};
std::map<std::string, std::string> files;
std::map<std::string, LONG64> ids;

// Do one step of the scenario and print what came of it.
void step(const std::string &name, const std::function<void()> &work) {
    try {
        work();
        std::cout << "ok " << name << std::endl;
    } catch (const std::exception &error) {
        std::cout << "not ok " << name << ": " << error.what() << std::endl;
    }
}

template <typename Found, typename Wanted> void expect(const Found &found, const Wanted &wanted) {
    if (found == wanted) return;
    std::ostringstream text;
    text << found << " instead of " << wanted;
    throw std::runtime_error(text.str());
}

// Store a file under a label, or again under the same one.
void add(
    const std::string &label, const std::string &type, const std::string &file, const std::string &valid_from,
    const std::string &answered
) {
    Record *stored = store(device, type, valid_from, files[file]);
    expect(stored->device_USCOREname, device);
    expect(stored->valid_USCOREfrom, answered);
    expect(size_t(stored->size), files[file].size());
    expect(stored->id, ids.emplace(label, stored->id).first->second);
}

void same(const std::string &file, const Record *calibration) {
    expect(calibration->id, ids[file]);
    expect(payload_of(calibration) == files[file], true);
}

Record *for_date(const std::string &type, const std::string &date) {
    _cdb__get_USCOREcalibration_USCOREfor_USCOREdate question;
    question.device_USCOREname = device;
    question.calibration_USCOREtype = type;
    question.date = date;
    _cdb__get_USCOREcalibration_USCOREfor_USCOREdateResponse answer;
    check(reader, reader.get_USCOREcalibration_USCOREfor_USCOREdate(&question, answer));
    return answer.calibration;
}

Record *current(const std::string &type, std::string *as_of = nullptr) {
    _cdb__get_USCOREcurrent_USCOREcalibration question;
    question.device_USCOREname = device;
    question.calibration_USCOREtype = type;
    question.as_USCOREof = as_of;
    _cdb__get_USCOREcurrent_USCOREcalibrationResponse answer;
    check(reader, reader.get_USCOREcurrent_USCOREcalibration(&question, answer));
    return answer.calibration;
}

Record *for_id(const std::string &label) {
    _cdb__get_USCOREcalibration_USCOREfor_USCOREid question;
    question.id = ids[label];
    _cdb__get_USCOREcalibration_USCOREfor_USCOREidResponse answer;
    check(reader, reader.get_USCOREcalibration_USCOREfor_USCOREid(&question, answer));
    return answer.calibration;
}

std::vector<Record *> in_period(const std::string &start, std::string stop = "") {
    _cdb__get_USCOREids question;
    question.start_USCOREtime = start;
    question.stop_USCOREtime = stop.empty() ? nullptr : &stop;
    _cdb__get_USCOREidsResponse answer;
    check(reader, reader.get_USCOREids(&question, answer));
    return answer.calibration;
}

void applies(const std::string &label, const std::string &date, const std::string &answered) {
    Record *calibration = for_date("instants", date);
    expect(calibration->id, ids[label]);
    expect(calibration->valid_USCOREfrom, answered);
}

void listed(const Labels &labels, const std::vector<Record *> &calibrations) {
    std::vector<LONG64> own, wanted;
    for (const Record *calibration : calibrations)
        if (calibration->device_USCOREname == device) {
            own.push_back(calibration->id);
            expect(calibration->data == nullptr, true);
        }
    for (const std::string &label : labels) wanted.push_back(ids[label]);
    expect(own == wanted, true);
}

// The detail of the fault that a question must end with.
SOAP_ENV__Detail *fault(const std::function<void()> &ask) {
    try {
        ask();
    } catch (const std::exception &error) {
        if (reader.soap_fault() && reader.soap_fault()->detail) return reader.soap_fault()->detail;
        throw;
    }
    throw std::runtime_error("no fault");
}

void calibration_not_found(const std::string &type, const std::function<void()> &ask) {
    const cdb__CalibrationNotFound *found = fault(ask)->cdb__CalibrationNotFound_;
    if (!found) throw std::runtime_error("another fault");
    expect(*found->device_USCOREname, device);
    expect(*found->calibration_USCOREtype, type);
    expect(found->message.size() > 20, true);
}

int main() {
    for (const std::string &name : names) {
        std::ifstream file(std::getenv("INTEROP_PAYLOADS") + ("/" + name), std::ios::binary);
        files[name].assign(std::istreambuf_iterator<char>(file), {});
    }
    step("wsdl", [] {
        in_period(VALID_FROM);
        _cdb__get_USCOREstatus question;
        _cdb__get_USCOREstatusResponse answer;
        check(reader, reader.get_USCOREstatus(&question, answer));
        expect(answer.status->status, "OK");
    });
    for (const std::string &name : names)
        step("upload-" + name, [&] { add(name, name, name, VALID_FROM, VALID_FROM); });
    step("upload-again", [] { add("binary", "binary", "binary", VALID_FROM, VALID_FROM); });
    step("add-run", [] {
        std::string stop = RUN_STOP;
        _cdb__add_USCORErun question;
        question.run_USCOREnumber = run;
        question.start_USCOREtime = RUN_START;
        question.stop_USCOREtime = &stop;
        _cdb__add_USCORErunResponse answer;
        check(writer, signed_in().add_USCORErun(&question, answer));
        expect(answer.run->run_USCOREnumber, run);
        expect(answer.run->start_USCOREtime, RUN_START);
        expect(*answer.run->stop_USCOREtime, RUN_STOP);
    });
    for (const std::string &name : names) {
        step("get-for-run-" + name, [&] { same(name, for_run(device, name, run)); });
        step("get-for-date-" + name, [&] { same(name, for_date(name, VALID_FROM)); });
        step("get-current-" + name, [&] { same(name, current(name)); });
        step("get-for-id-" + name, [&] { same(name, for_id(name)); });
    }
    step("upload-microseconds", [] { add("precise", "instants", "binary", PRECISE, PRECISE); });
    step("microsecond-before", [] { calibration_not_found("instants", [] { for_date("instants", BEFORE_PRECISE); }); });
    step("microsecond-at", [] { applies("precise", PRECISE, PRECISE); });
    step("microsecond-after", [] { applies("precise", AFTER_PRECISE, PRECISE); });
    step("upload-offset", [] { add("offset", "instants", "binary", OFFSET, OFFSET_IN_UTC); });
    step("offset-before", [] { applies("precise", BEFORE_OFFSET, PRECISE); });
    step("offset-at", [] { applies("offset", OFFSET, OFFSET_IN_UTC); });
    step("no-offset", [] { applies("offset", WITHOUT_OFFSET, OFFSET_IN_UTC); });
    step("valid-until", [] {
        expect(*for_id("precise")->valid_USCOREuntil, OFFSET_IN_UTC);
        expect(for_id("offset")->valid_USCOREuntil == nullptr, true);
    });
    step("get-ids", [] { listed({"binary", "megabyte", "empty", "precise"}, in_period(BEFORE_OFFSET)); });
    step("get-ids-period", [] {
        listed({"binary", "megabyte", "empty", "precise", "offset"}, in_period(RUN_START, OFFSET));
    });
    step("list-devices", [] {
        _cdb__list_USCOREdevices question;
        _cdb__list_USCOREdevicesResponse answer;
        check(reader, reader.list_USCOREdevices(&question, answer));
        for (const cdb__device *each : answer.device)
            if (each->device_USCOREname == device)
                return expect(each->calibration_USCOREtype == Labels{"binary", "empty", "instants", "megabyte"}, true);
        throw std::runtime_error("the device is not listed");
    });
    step("as-of", [] {
        std::string as_of = VALID_FROM;
        calibration_not_found("binary", [&] { current("binary", &as_of); });
    });
    step("withdraw", [] {
        _cdb__withdraw_USCOREcalibration question;
        question.id = ids["offset"];
        question.reason = "only a test";
        _cdb__withdraw_USCOREcalibrationResponse answer;
        check(writer, signed_in().withdraw_USCOREcalibration(&question, answer));
        expect(answer.calibration->withdrawn, true);
        expect(*answer.calibration->withdrawn_USCOREreason, question.reason);
        applies("precise", OFFSET, PRECISE);
    });
    step("fault-calibration-not-found", [] { calibration_not_found("missing", [] { current("missing"); }); });
    step("fault-invalid-argument", [] {
        const cdb__InvalidArgument *found = fault([] { in_period(PRECISE, VALID_FROM); })->cdb__InvalidArgument_;
        expect(found ? found->argument : "another fault", "stop_time");
    });
    step("fault-run-not-found", [] {
        const cdb__RunNotFound *found = fault([] { for_run(device, "binary", run + 1); })->cdb__RunNotFound_;
        expect(found ? found->run_USCOREnumber : 0, run + 1);
    });
    step("no-token", [] {
        _cdb__add_USCORErun question;
        question.run_USCOREnumber = run;
        question.start_USCOREtime = RUN_START;
        _cdb__add_USCORErunResponse answer;
        expect(writer.add_USCORErun(&question, answer), 401);
    });

    // What gSOAP's own type for times cannot do: see the table in the test.
    step("own-time-type", [] {
        time_t time;
        soap_s2dateTime(reader.soap, PRECISE.c_str(), &time);
        expect(soap_dateTime2s(reader.soap, time), PRECISE);
    });
}
