# Records what R's survival package says, with the data it says it about:
#   python -m tests.analysis.rossi > rossi.csv && Rscript tests/analysis/record_r.R rossi.csv tests/analysis/r_results.json
# (Debian: apt-get install r-base-core r-cran-survival r-cran-jsonlite)
library(survival)
library(jsonlite)
arguments <- commandArgs(trailingOnly = TRUE)
options(warn = 1)
set.seed(20261125)

columns <- function(frame, names) na.omit(frame[names])
rossi <- read.csv(arguments[1])
rossi <- columns(rossi, c("week", "arrest", "fin", "age", "race", "wexp", "mar", "paro", "prio"))
names(rossi)[1:2] <- c("time", "event")
lung_ <- columns(transform(lung, event = status - 1), c("time", "event", "age", "sex", "ph.karno", "inst"))
veteran_ <- transform(veteran, event = status, squamous = as.numeric(celltype == "squamous"), decade = age %/% 5)
veteran_ <- columns(veteran_, c("time", "event", "trt", "karno", "diagtime", "squamous", "decade"))
pbc_ <- columns(transform(pbc, event = as.numeric(status == 2), female = as.numeric(sex == "f"), logbili = log(bili)),
                c("time", "event", "age", "female", "edema", "logbili", "albumin", "stage"))
heart_ <- transform(heart, transplant = as.numeric(as.character(transplant)))
heart_ <- heart_[c("start", "stop", "event", "age", "year", "surgery", "transplant", "id")]
names(heart_)[2] <- "time"
made <- function(n, steps, ratio) {
  arm <- rep(0:1, n / 2); dose <- rep(c(0, 0.1, 0.2, 0.3, 0.4), length.out = n); seed <- rep(1:10, each = n / 10)
  time <- ceiling(steps * rexp(n) / ratio^arm); event <- as.numeric(time <= steps)
  data.frame(time = pmin(time, steps), event = event, arm = arm, dose = dose, seed = seed)
}
ties25 <- made(240, 25, 1.5)
ties6 <- made(240, 6, 1.0)
censored <- data.frame(time = c(10, 20, 30, 40), event = 0, arm = c(0, 1, 0, 1))
oneevent <- data.frame(time = c(10, 20, 30, 40), event = c(0, 1, 0, 0), arm = c(0, 1, 1, 0))
onetime <- data.frame(time = rep(30, 8), event = 1, arm = rep(0:1, 4))
five <- data.frame(time = c(10, 20, 30, 40, 50), event = 1, arm = 0)
half <- data.frame(time = c(10, 20, 30, 40), event = c(1, 1, 1, 1), arm = 0)
# a covariate that grows in each run, on a scale far from 1: runs that end early grew faster
varying <- do.call(rbind, lapply(1:60, function(run) {
  slope <- exp(rnorm(1, 0, 0.7)); crash <- ceiling(rexp(1, 0.02 * slope)); end <- min(crash, 80)
  data.frame(start = 0:(end - 1), time = 1:end, event = as.numeric(1:end == crash),
             x = 5000 + slope * (1:end), run = run, seed = run %% 6, cell = run %% 2)
}))

cases <- list(
  rossi = list(data = "rossi", x = c("fin", "age", "race", "wexp", "mar", "paro", "prio"), cluster = "age"),
  rossi_strata = list(data = "rossi", x = c("fin", "age", "prio"), cluster = "age", strata = "race"),
  lung = list(data = "lung", x = c("age", "sex", "ph.karno"), cluster = "inst"),
  veteran = list(data = "veteran", x = c("trt", "karno", "diagtime", "squamous"), cluster = "decade"),
  pbc = list(data = "pbc", x = c("age", "female", "edema", "logbili", "albumin"), cluster = "stage"),
  pbc_strata = list(data = "pbc", x = c("age", "edema", "logbili"), cluster = "stage", strata = "female"),
  heart = list(data = "heart", x = c("age", "year", "surgery", "transplant"), cluster = "id", start = TRUE),
  ties25 = list(data = "ties25", x = c("arm", "dose"), cluster = "seed"),
  ties6 = list(data = "ties6", x = c("arm", "dose"), cluster = "seed"),
  ties6_strata = list(data = "ties6", x = c("arm", "dose"), cluster = "seed", strata = "seed"),
  varying = list(data = "varying", x = "x", cluster = "seed", start = TRUE, strata = "cell")
)
data <- list(rossi = rossi, lung = lung_, veteran = veteran_, pbc = pbc_, heart = heart_, ties25 = ties25, ties6 = ties6,
             censored = censored, oneevent = oneevent, onetime = onetime, five = five, half = half, varying = varying)

left <- function(case) if (isTRUE(case$start)) "Surv(start, time, event)" else "Surv(time, event)"
fit <- function(case, ties) {
  right <- paste(case$x, collapse = " + ")
  if (!is.null(case$strata)) right <- paste0(right, " + strata(", case$strata, ")")
  text <- paste0("coxph(", left(case), " ~ ", right, ", data = data$", case$data, ", ties = \"", ties,
                 "\", cluster = ", case$cluster, ")")
  model <- eval(parse(text = text))
  plain <- eval(parse(text = sub(paste0(", cluster = ", case$cluster), "", text, fixed = TRUE)))
  check <- function(transform) {
    table <- cox.zph(plain, transform = transform)$table
    list(chisq = unname(table[, "chisq"]), p = unname(table[, "p"]))
  }
  list(call = text, coef = unname(coef(model)), naive_se = unname(sqrt(diag(model$naive.var))),
       robust_se = unname(sqrt(diag(model$var))), loglik = model$loglik,
       concordance = unname(plain$concordance["concordance"]),
       zph = list(km = check("km"), rank = check("rank"), identity = check("identity")))
}
results <- list()
for (name in names(cases)) for (ties in c("efron", "breslow"))
  results[[name]][[ties]] <- fit(cases[[name]], ties)

curve <- function(frame, horizon) {
  table <- summary(survfit(Surv(time, event) ~ 1, data = frame, conf.type = "log-log"), rmean = horizon)$table
  as.list(unname(table[c("median", "0.95LCL", "0.95UCL", "rmean", "se(rmean)")]))
}
curves <- list()
for (name in c("rossi", "lung", "veteran", "pbc", "ties25", "ties6", "censored", "oneevent", "onetime", "five", "half"))
  curves[[name]] <- curve(data[[name]], max(data[[name]]$time))

logranks <- list(
  list(data = "rossi", group = "fin", strata = NULL), list(data = "rossi", group = "wexp", strata = "race"),
  list(data = "lung", group = "sex", strata = NULL), list(data = "lung", group = "sex", strata = "inst"),
  list(data = "veteran", group = "trt", strata = "squamous"), list(data = "veteran", group = "karno", strata = NULL),
  list(data = "pbc", group = "stage", strata = "female"), list(data = "ties25", group = "arm", strata = "seed"),
  list(data = "ties6", group = "dose", strata = "seed"))
for (i in seq_along(logranks)) {
  one <- logranks[[i]]
  right <- if (is.null(one$strata)) one$group else paste0(one$group, " + strata(", one$strata, ")")
  text <- paste0("survdiff(Surv(time, event) ~ ", right, ", data = data$", one$data, ")")
  found <- eval(parse(text = text))
  logranks[[i]]$call <- text
  logranks[[i]]$chisq <- if (is.finite(found$chisq)) found$chisq else NA
}

aft <- function(name, x) {
  model <- eval(parse(text = paste0("survreg(Surv(time, event) ~ ", x, ", data = data$", name, ", dist = 'weibull')")))
  list(coef = unname(coef(model)), shape = 1 / model$scale, log_scale_se = unname(sqrt(diag(vcov(model)))["Log(scale)"]))
}
weibull <- list(lung = aft("lung", "1"), veteran = aft("veteran", "1"), ties25 = aft("ties25", "1"))
long <- function(frame) do.call(rbind, lapply(seq_len(nrow(frame)), function(i) {
  row <- frame[i, ]; data.frame(t = 1:row$time, arm = row$arm, dose = row$dose, y = as.numeric(1:row$time == row$time) * row$event)
}))
cloglog <- glm(y ~ factor(t) + arm + dose - 1, family = binomial("cloglog"), data = long(ties6))
discrete <- list(ties6 = list(coef = unname(coef(cloglog)[c("arm", "dose")]),
                              se = unname(sqrt(diag(vcov(cloglog)))[c("arm", "dose")])))

write(toJSON(list(
  versions = list(R = R.version.string, survival = as.character(packageVersion("survival"))),
  data = data, cases = cases, results = results, curves = curves, logranks = logranks, weibull = weibull,
  discrete = discrete
), dataframe = "columns", auto_unbox = TRUE, digits = NA, na = "null", null = "null"), arguments[2])
