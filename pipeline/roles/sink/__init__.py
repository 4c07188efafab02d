"""The sink roles, one for each registered sink: decode, batch, write, dead-letter refused rows, acknowledge."""
