// The short scenario in C++ with libcurl and libxml2, without generated code.

// docs: begin
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <curl/curl.h>
#include <libxml/parser.h>
#include <libxml/xpath.h>
#include <libxml/xpathInternals.h>
#include <openssl/evp.h>

using Arguments = std::vector<std::pair<std::string, std::string>>;  // in the order of the WSDL

static size_t append(char *data, size_t size, size_t count, void *text) {
    static_cast<std::string *>(text)->append(data, size * count);
    return size * count;
}

static std::string escaped(const std::string &text) {
    std::string out;
    for (char c : text) out += c == '&' ? "&amp;" : c == '<' ? "&lt;" : std::string(1, c);
    return out;
}

// The text that an XPath finds in an answer, such as "//c:valid_from".
std::string found(const std::string &xml, const char *path) {
    xmlDoc *document = xmlReadMemory(xml.data(), xml.size(), "", nullptr, XML_PARSE_HUGE | XML_PARSE_NONET);
    if (!document) throw std::runtime_error("no XML: " + xml.substr(0, 200));
    xmlXPathContext *context = xmlXPathNewContext(document);
    xmlXPathRegisterNs(context, BAD_CAST "c", BAD_CAST "urn:mice:cdb:2");
    xmlXPathObject *object = xmlXPathEvalExpression(BAD_CAST path, context);
    xmlChar *text = xmlXPathCastToString(object);
    std::string out(reinterpret_cast<char *>(text));
    xmlFree(text);
    xmlXPathFreeObject(object);
    xmlXPathFreeContext(context);
    xmlFreeDoc(document);
    return out;
}

// Call an operation; the answer as XML. With credentials ("user:token") where it writes.
std::string call(const std::string &service, const std::string &operation, const Arguments &arguments,
                 const std::string &credentials = "") {
    std::string body = "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body><" + operation +
                       " xmlns=\"urn:mice:cdb:2\">";
    for (const auto &[name, value] : arguments) body += "<" + name + ">" + escaped(value) + "</" + name + ">";
    body += "</" + operation + "></s:Body></s:Envelope>";
    std::string url = std::string(std::getenv("CDB_SERVER")) + "/cdb/v2/" + service, answer;
    curl_slist *headers = curl_slist_append(nullptr, "Content-Type: text/xml; charset=utf-8");
    headers = curl_slist_append(headers, "SOAPAction: \"\"");
    CURL *curl = curl_easy_init();
    curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body.c_str());
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, append);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, 60L);
    if (!credentials.empty()) curl_easy_setopt(curl, CURLOPT_USERPWD, credentials.c_str());
    CURLcode failed = curl_easy_perform(curl);
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_cleanup(curl);
    curl_slist_free_all(headers);
    if (failed) throw std::runtime_error(curl_easy_strerror(failed));
    // Without a good token the answer is a line of text, with status 401.
    if (status == 500) throw std::runtime_error(found(answer, "local-name(//detail/*)") + ": " + found(answer, "//c:message"));
    if (status != 200) throw std::runtime_error(std::to_string(status) + ": " + answer);
    return answer;
}

static std::string base64(const std::string &data) {
    std::string out(4 * ((data.size() + 2) / 3) + 1, '\0');
    out.resize(EVP_EncodeBlock(reinterpret_cast<unsigned char *>(&out[0]),
                               reinterpret_cast<const unsigned char *>(data.data()), data.size()));
    return out;
}

static std::string unbase64(const std::string &text) {
    std::string out(3 * (text.size() / 4) + 3, '\0');
    int size = EVP_DecodeBlock(reinterpret_cast<unsigned char *>(&out[0]),
                               reinterpret_cast<const unsigned char *>(text.data()), text.size());
    for (size_t end = text.size(); end && text[end - 1] == '='; --end) --size;  // counted, though they are none
    out.resize(size < 0 ? 0 : size);
    return out;
}

static std::string sha256(const std::string &data) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    EVP_Digest(data.data(), data.size(), digest, &size, EVP_sha256(), nullptr);
    std::string out;
    for (unsigned i = 0; i < size; ++i) out += {"0123456789abcdef"[digest[i] >> 4], "0123456789abcdef"[digest[i] & 15]};
    return out;
}

// Store bytes, to apply from a time like 2016-03-01T08:00:00.123456Z on.
std::string store(const std::string &device, const std::string &type, const std::string &valid_from, const std::string &data) {
    return call("calibrationSuperMouse", "add_calibration",
                {{"device_name", device}, {"calibration_type", type}, {"valid_from", valid_from},
                 {"data", base64(data)}, {"sha256", sha256(data)}},
                std::string(std::getenv("CDB_USER")) + ":" + std::getenv("CDB_TOKEN"));
}

// The bytes, checked, of an answer such as call("calibration", "get_calibration_for_run", {...}).
std::string payload_of(const std::string &answer) {
    std::string data = unbase64(found(answer, "//c:data"));
    if (sha256(data) != found(answer, "//c:sha256")) throw std::runtime_error("damaged on its way");
    return data;
}
// docs: end

#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>

static void step(const std::string &name, const std::function<std::string()> &work) {
    std::string told;
    try {
        told = work();
    } catch (const std::exception &error) {
        told = error.what();
    }
    for (char &c : told) c = c == '\n' ? ' ' : c;
    std::cout << name << ": " << told.substr(0, 400) << "\n";
}

int main() {
    const std::string device = std::getenv("INTEROP_DEVICE"), at = "2016-03-01T08:00:00.123456Z";
    std::ifstream opened(std::string(std::getenv("INTEROP_PAYLOADS")) + "/binary", std::ios::binary);
    const std::string file((std::istreambuf_iterator<char>(opened)), std::istreambuf_iterator<char>());
    auto applies = [&](const std::string &date) {
        return call("calibration", "get_calibration_for_date",
                    {{"device_name", device}, {"calibration_type", "short"}, {"date", date}});
    };
    step("status", [&] { return found(call("calibration", "get_status", {}), "//c:status/c:status"); });
    store(device, "short", at, file);
    step("bytes", [&] { return payload_of(applies(at)) == file ? "true" : "false"; });
    step("before", [&] { return applies("2016-03-01T08:00:00.123455Z"); });
    step("devices", [&] {
        return found(call("calibration", "list_devices", {}), ("//c:device_name = '" + device + "'").c_str());
    });
    step("no-token", [&] { return call("calibrationSuperMouse", "add_run", {{"run_number", "1"}, {"start_time", at}}); });
}
