# The short scenario in R with the packages curl, openssl and xml2.

# docs: begin
library(curl)
library(openssl)
library(xml2)

url <- Sys.getenv("CDB_SERVER")
names_of <- c(cdb = "urn:mice:cdb:2")

# Call an operation with arguments in the order of the WSDL; the answer's Body, or an error with the fault's text.
ask <- function(service, operation, arguments = list(), handle = new_handle()) {
  envelope <- xml_new_root("s:Envelope", "xmlns:s" = "http://schemas.xmlsoap.org/soap/envelope/")
  call <- xml_add_child(xml_add_child(envelope, "s:Body"), operation, xmlns = "urn:mice:cdb:2")
  for (name in names(arguments)) xml_add_child(call, name, arguments[[name]])
  handle_setheaders(handle, "Content-Type" = "text/xml; charset=utf-8", SOAPAction = "")
  handle_setopt(handle, postfields = as.character(envelope))
  answer <- curl_fetch_memory(paste0(url, "/cdb/v2/", service), handle)
  text <- rawToChar(answer$content)
  # Without a good token the answer is a line of text, with status 401.
  if (!answer$status_code %in% c(200, 500)) stop(answer$status_code, ": ", text)
  body <- xml_child(read_xml(text, options = "HUGE"), 1)
  fault <- xml_find_first(body, ".//detail/*")
  if (!is.na(fault)) stop(xml_name(fault), ": ", xml_text(xml_find_first(fault, "cdb:message", names_of)))
  body
}

# Store a raw vector, to apply from a time like "2016-03-01T08:00:00.123456Z" on.
store <- function(device, type, valid_from, data) {
  token <- new_handle(userpwd = paste0(Sys.getenv("CDB_USER"), ":", Sys.getenv("CDB_TOKEN")))
  ask("calibrationSuperMouse", "add_calibration", handle = token, list(
    device_name = device, calibration_type = type, valid_from = valid_from,
    data = base64_encode(data), sha256 = as.character(sha256(data)) # the server checks it
  ))
}

applies <- function(device, type, date) {
  ask("calibration", "get_calibration_for_date", list(device_name = device, calibration_type = type, date = date))
}

field <- function(answer, name) xml_text(xml_find_first(answer, paste0(".//cdb:", name), names_of))

# The bytes, checked.
payload_of <- function(answer) {
  data <- base64_decode(field(answer, "data"))
  if (as.character(sha256(data)) != field(answer, "sha256")) stop("damaged on its way")
  data
}
# docs: end

step <- function(name, found) {
  told <- tryCatch(as.character(found), error = conditionMessage)
  cat(name, ": ", gsub("\n", " ", told), "\n", sep = "")
}

device <- Sys.getenv("INTEROP_DEVICE")
path <- file.path(Sys.getenv("INTEROP_PAYLOADS"), "binary")
file <- readBin(path, "raw", file.size(path))
at <- "2016-03-01T08:00:00.123456Z"
step("status", field(ask("calibration", "get_status"), "status/cdb:status"))
stored <- store(device, "short", at, file)
step("bytes", identical(payload_of(applies(device, "short", at)), file))
step("before", applies(device, "short", "2016-03-01T08:00:00.123455Z"))
step("devices", device %in% xml_text(xml_find_all(ask("calibration", "list_devices"), ".//cdb:device_name", names_of)))
step("no-token", ask("calibrationSuperMouse", "add_run", list(run_number = 1, start_time = at)))
